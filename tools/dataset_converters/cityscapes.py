"""Turn Cityscapes' maps of ids into maps of the 19 training labels."""

from _converter import main

if __name__ == '__main__':
    main('cityscapes', __doc__)
