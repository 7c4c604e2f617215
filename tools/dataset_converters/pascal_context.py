"""Turn Pascal-Context's JSON or MATLAB masks into 60-class label maps."""

from _converter import main

if __name__ == '__main__':
    main('pascal_context', __doc__)
