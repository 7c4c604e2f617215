"""What is wrong with the data of a config, and which key to change."""

from zs3_mmseg.apis.data_checks.check import (
    DataReport,
    check_data,
    print_report,
    write_report,
)
from zs3_mmseg.apis.data_checks.parts import KINDS, Finding

__all__ = [
    'KINDS',
    'DataReport',
    'Finding',
    'check_data',
    'print_report',
    'write_report',
]
