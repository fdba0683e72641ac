"""The training run: epochs, optimizer, cached features, the run folder.

It knows nothing of flags or drawing.
"""
