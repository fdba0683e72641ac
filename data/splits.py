"""Which split a path states: one rule for folders, lists of names and annotation files."""

import re
from pathlib import Path, PurePath

from config import SPLIT_WORDS

WORDS = re.compile("[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # of val_images, valImages, VAL and val2017
# What a folder's name may say besides its split: "train images" is one, "train station" is not.
BESIDE_A_SPLIT = frozenset(
    "image images img imgs picture pictures photo photos frames rgb raw original input inputs "
    "mask masks label labels annotation annotations annot annots ann anno gt ground truth target "
    "targets seg segmentation segmentations data dataset set split stage part instances coco voc "
    "yolo json jpg jpeg png list lists ids names files".split()
)
TRAIN_AND_VALID = re.compile(r"train(ing)?[\W_]?val(id(ation)?)?", re.IGNORECASE)
LISTING_FILES = frozenset(".json .jsonl .ndjson .txt .lst .csv .tsv .xml .yaml .yml".split())


def split_of(path: Path | PurePath) -> str | None:
    """The split that a path below the data folder states, or None; the last part that says one.

    A folder states a split if its name is one of SPLIT_WORDS, with numbers, single letters and
    BESIDE_A_SPLIT at most. A file that lists or annotates pictures, which has one of LISTING_FILES
    as its extension, may have any words besides one split's. Names of pictures state none.
    """
    *folders, last = path.parts or ("",)
    suffix = PurePath(last).suffix.lower()
    if suffix in LISTING_FILES:
        names = [(PurePath(last).stem, False)]
    else:
        names = [] if suffix[1:].isalpha() else [(last, True)]  # a picture, or a folder
    for name, strict in [*names, *((folder, True) for folder in reversed(folders))]:
        if found := split_of_name(name, strict):
            return found
    return None


def split_of_name(name: str, strict: bool = True) -> str | None:
    """The split that one name states; strict: as a folder's (see split_of).

    A folder of training and validation together is trained on.
    """
    if strict and TRAIN_AND_VALID.fullmatch(name):
        return "train"
    words = [word.lower() for word in WORDS.findall(name)]
    found = {split for split, known in SPLIT_WORDS.items() if set(words) & set(known)}
    if "test" in found:  # COCO's test-dev is no picture to train on
        found.discard("valid")
    others = {word for word in words if len(word) > 1} - BESIDE_A_SPLIT
    others -= {word for known in SPLIT_WORDS.values() for word in known}
    return found.pop() if len(found) == 1 and not (strict and others) else None


def without_split(name: str) -> str:
    """A folder's name without the split that it states, so that folders of all splits are alike."""
    if split_of_name(name) is None:
        return name.lower()
    known = {word for words in SPLIT_WORDS.values() for word in words}
    words = [word.lower() for word in WORDS.findall(name)]
    return " ".join(word for word in words if word not in known and len(word) > 1)
