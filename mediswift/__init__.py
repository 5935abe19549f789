"""MediSwift remade: sparse pre-training, dense fine-tuning, soft prompts and PubMedQA."""

__version__ = "0.1.0"
