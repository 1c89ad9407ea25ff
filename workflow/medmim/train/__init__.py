"""Training: small base models made here, and the fine-tuning of any base on multi-image questions.

order        which sample comes when: a pure function of (seed, epoch)
history      loss, tokens and speed: the log's lines, the progress bar, rows of the loss table
base         a tiny base: its vision tower on attributes, then projector and language model on single images and text
tune         LoRA on the language model and the projector in full, through transformers' Trainer
checkpoints  the newest whole checkpoint of the same work
recipe       the sections of the config that the trainings read
place        what the machine must offer: GPUs, processes, threads
"""
