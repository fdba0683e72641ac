"""A web page for each output folder, `index.html`, made of the files that the scripts leave there.

It must not know networks or training, and needs no server: pages are opened from disk.
"""
