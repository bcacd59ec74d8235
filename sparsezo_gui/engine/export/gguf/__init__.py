"""A step of a run as a GGUF file, for llama.cpp, Ollama and LM Studio: the model, or only its adapter.

What `sparsezo_gui.engine.pretrained.gguf` reads is written here the other way round, and read back by it.
"""
