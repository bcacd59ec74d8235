"""The Hugging Face Hub and its cache: finding, downloading, consent to code, tokens, the list of models."""
