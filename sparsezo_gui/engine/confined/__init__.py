"""What strangers wrote and only a run can tell is harmless, run in a process of its own: templates and tokenizers.

A template is a program, and a tokenizer's file describes one in a library that aborts the whole process where it fails.
Neither can be interrupted from outside while it computes, so both run in a child (`process` starts and watches it,
`child` is its program): for each request so much processor time and memory, after which it is killed, the request is
refused in a sentence, and the next request gets a new child. It starts when it is first needed, imports no torch, and
ends when it was not asked for a while. It knows nothing of the user's environment, and answers in bytes that the parent
takes for plain text.

`prompt` and `conversation` are the two kinds of templates, `tokens` tries a tokenizer's file.
"""
