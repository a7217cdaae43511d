"""Random PyTorch modules, and what must hold of their folds: `judge.judged`."""
