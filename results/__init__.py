"""What people look at: overlays, legends, tables, curves, reports; the HTML pages in `pages/`.

It knows nothing of networks or training.
"""
