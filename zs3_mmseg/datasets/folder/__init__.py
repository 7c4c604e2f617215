"""Data of one's own: a folder of images, masks and text files."""

from zs3_mmseg.datasets.folder.dataset import FolderSegDataset
from zs3_mmseg.datasets.folder.loading import LoadFolderMasks

__all__ = ['FolderSegDataset', 'LoadFolderMasks']
