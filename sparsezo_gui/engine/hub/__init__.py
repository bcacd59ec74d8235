"""The Hugging Face Hub and its cache: finding and downloading models, access tokens, the list of models."""
