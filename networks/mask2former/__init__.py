"""Meta's Mask2Former on a ViT-Adapter; inference/published_mask2former.py loads it.

Must not know: files, class names, test protocols.
"""
