"""The demo: drawn pictures, the data set and video made of them, and the tiny backbone's training.

The files that draw know nothing but numpy and cv2; removing the room removes the demo alone.
"""
