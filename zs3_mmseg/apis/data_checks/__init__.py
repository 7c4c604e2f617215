"""What is wrong with the data of a config, and which key to change."""

from zs3_mmseg.apis.data_checks.check import DataReport, check_data
from zs3_mmseg.apis.data_checks.finding import KINDS, Finding
from zs3_mmseg.apis.data_checks.report import print_report, write_report

__all__ = [
    'KINDS',
    'DataReport',
    'Finding',
    'check_data',
    'print_report',
    'write_report',
]
