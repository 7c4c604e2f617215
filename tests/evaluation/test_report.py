import numpy as np

from zs3_mmseg.evaluation.report import class_table, summary_table
from zs3_mmseg.evaluation.scores import gzsl_scores

# Class 'b' is neither there nor predicted; 'd' is predicted only.
CONFUSION = np.array([[3, 0, 1, 0], [0, 0, 0, 0], [0, 0, 2, 2], [0, 0, 0, 0]])


def rows(table: str) -> dict[str, list[str]]:
    cells = [line.strip('|').split('|') for line in table.splitlines() if '|' in line]
    return {row[-4].strip(): [c.strip() for c in row] for row in cells}


def test_classes_are_grouped_and_absent_ones_have_no_score() -> None:
    table = class_table(CONFUSION, ['a', 'b', 'c', 'd'], [0, 3], 'nan')
    found = rows(table)
    assert list(found)[1:] == ['b', 'c', 'a', 'd']
    assert found['b'] == ['seen', 'b', 'n/a', 'n/a', '0.00']
    assert found['a'] == ['unseen', 'a', '75.00', '75.00', '50.00']
    assert found['d'] == ['unseen', 'd', '0.00', 'n/a', '0.00']


def test_boundary_iou_has_a_column_where_it_was_measured() -> None:
    boundary = np.array([0.5, np.nan, 0.25, 0.0])
    table = class_table(CONFUSION, ['a', 'b', 'c', 'd'], [0, 3], 'nan', boundary)
    header, *_ = (line for line in table.splitlines() if 'Class' in line)
    column = [cell.strip() for cell in header.split('|')].index('Boundary IoU')
    line = next(line for line in table.splitlines() if '| c ' in line)
    assert line.split('|')[column].strip() == '25.00'


def test_summary_tells_how_many_classes_are_there() -> None:
    scores = gzsl_scores(CONFUSION, [1, 2], [0, 3])
    lines = summary_table(scores, CONFUSION, [0, 3]).splitlines()
    counts = {line.split()[1]: line.split('|')[-2].strip() for line in lines[3:6]}
    assert counts == dict(all='2 of 4', seen='1 of 2', unseen='1 of 2')
