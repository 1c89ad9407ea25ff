"""Training: small base models made here, and the fine-tuning of any base on multi-image questions.

order        which sample comes when: a pure function of (seed, epoch)
packing      which samples share a pack: a pure function of (lengths, seed, epoch, budget)
history      loss, tokens and speed: lines of progress in the log, rows of the loss table
meter        tokens a second, share of the GPUs' peak, padding, waiting, memory; TensorBoard
base         a tiny base: its vision tower on attributes, then projector and language model on single images and text
tune         the language model by LoRA or in full and the projector in full, through transformers' Trainer
checkpoints  one training's: a folder a run, the newest whole one of any run, nothing written where another may write
preempt      being told to stop: SIGTERM, and SLURM's queue
group        the processes that train together, by torchrun or srun
recipe       the sections of the config that the trainings read
place        what a training sets before it begins: threads, seeds, the environment of its libraries
"""
