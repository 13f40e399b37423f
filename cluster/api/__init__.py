"""The management API: Hugging Face's Inference Endpoints resource over HTTP, and Moorage's routes beside it."""
