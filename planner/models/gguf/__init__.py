"""Models as GGUF files, the format of llama.cpp: header, files of one model, and its ModelSpec.

header.py         one file's metadata and tensor list, without trust
files.py          what was typed -> the files of one model (splits, folders, ollama's blobs)
architectures.py  llama.cpp's architectures in the words of transformers' configs
read_gguf.py      both together -> ModelSpec
tensors.py        the tensor list that a ModelSpec keeps
"""
