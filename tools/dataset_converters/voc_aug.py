"""Turn the MATLAB masks of SBD into SegmentationClassAug, with the lists."""

from _converter import main

if __name__ == '__main__':
    main('voc12', __doc__)
