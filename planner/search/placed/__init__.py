"""Plans of engines that place parts of a model in host memory, beside those of one device.

`table` places and predicts; `questions` asks either kind of engine, and knows which it is.
"""
