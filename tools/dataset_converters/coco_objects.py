"""Draw the instances of COCO 2014 into label maps of 80 classes."""

from _converter import main

if __name__ == '__main__':
    main('coco20i', __doc__)
