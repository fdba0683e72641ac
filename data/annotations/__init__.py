"""Shapes drawn by annotation tools, read as data sets: COCO, labelme, YOLO, Label Studio.

It knows nothing of how masks are stored or decoded, of networks or devices.
"""
