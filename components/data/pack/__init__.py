"""Pack captions and images into the LongGRIT data set, with a card and a report page."""
