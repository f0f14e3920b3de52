"""Products of a chunk with the experts that its tokens chose: a layer's experts in one launch."""
