"""A GGUF file, the format of llama.cpp, Ollama and LM Studio, as a model like any other.

Its header holds what other models have in config.json and in the tokenizer's files. These are written once into the
program's home (see `companions`); weights are read from the file itself, one at a time, and made dense. Format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""
