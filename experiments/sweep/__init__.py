"""The simulator's study: a grid of small decoders, fine-tuned and measured."""
