"""Untrusted templates and tokenizers, run in a separate process with limits.

A template is a program, and a tokenizer file drives a library that aborts the whole process when it fails. Neither can
be interrupted from outside while it computes, so both run in a child process (`process` starts and watches it, `child`
is its program). Each request has a limit of processor time and memory; at the limit the child is killed, the request
is refused with an error message, and the next request gets a new child. The child starts on first use, does not import
torch, and exits when idle. It gets none of the user's environment and answers in bytes that the parent treats as text.

`prompt` and `conversation` render the two kinds of templates; of a conversation, `turns` finds the text that each turn
writes (with `ends`, what follows an answer, and `marks`, where contents are) and `writing` what is not in the text.
`tokens` tries a tokenizer file.
"""
