"""Give every region a mask: the record's own, SAM's, GrabCut's, or the box itself."""
