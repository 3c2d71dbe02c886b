"""Plain text files to rows `{"text": ...}`: your own, or tinyshakespeare for a start.

Tinyshakespeare is not part of this project: a text in the public domain, from `karpathy/char-rnn`.
"""
