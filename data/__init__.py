"""From folders to pairs of arrays: layouts, reading, checks, transforms, augmentation.

`labels/` says what mask values mean, `annotations/` reads what annotation tools write.
It knows nothing of models, losses or devices.
"""
