"""Renumber the pixel maps of COCO-Stuff 164k to its 171 classes."""

from _converter import main

if __name__ == '__main__':
    main('cocostuff164k', __doc__)
