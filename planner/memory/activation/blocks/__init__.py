"""What each kind of mixer, FFN and norm keeps alive during a forward pass."""
