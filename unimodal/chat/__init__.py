"""Talk with a loaded model: the conversation, the terminal, and the prompt between them."""
