"""Shapes drawn by annotation tools: COCO, labelme, YOLO, Label Studio, VIA, CVAT.

It knows nothing of how masks are stored or decoded, of networks or devices.
"""
