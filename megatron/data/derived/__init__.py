"""Datasets of more than texts: labels that say what is trained on, conversations, rewards. Each is an Encoder with outputs of its own.

labels.py         what labels are, and how they are named and made
mask.py           text, trained on behind a sequence of tokens
chat_template.py  a Hugging Face chat template, compiled and rendered without transformers
template_files.py where it is found
generation.py     {% generation %} blocks: what a template itself marks as generated
turns.py          which characters of a rendered conversation are trained on
conversation.py   a record -> conversations and rewards
offsets.py        which characters of a text each token is of
chat.py           conversations -> tokens, labels and rewards
"""
