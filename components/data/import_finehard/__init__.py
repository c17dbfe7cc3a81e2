"""FineHARD, as region rows with captions and their images: what `pack` makes a data set of."""
