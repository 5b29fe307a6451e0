"""A reader's condition on a table, `DataFrame.query` for strangers: comparisons of columns and constants, no code."""

import ast

import pandas as pd

from ..settings import shown

LONGEST = 300
ALLOWED = (
    *(ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.UAdd, ast.Invert),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.BitAnd, ast.BitOr, ast.Compare, ast.Name, ast.Load),
    *(ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn, ast.Constant, ast.List, ast.Tuple),
)


def queried(table: pd.DataFrame, text: str) -> pd.DataFrame:
    """Return the rows that a condition lets through: `rate < 0.2 and method in ["colt", "imp"]`; all for "".

    Only comparisons, and, or, not, +, -, *, / of columns, numbers, texts and lists of them: no calls, no attributes, no
    names of Python's.

    Raises
    ------
    ValueError
        In one line that says what is wrong and which columns there are.
    """
    if not text.strip():
        return table
    columns = [name for name in table if isinstance(name, str) and name.isidentifier()]
    try:
        if len(text) > LONGEST:
            raise ValueError(f"it is longer than {LONGEST} characters")
        _check(ast.parse(text.strip(), mode="eval"), columns)
        return table.query(text.strip(), engine="python", parser="pandas", local_dict={}, global_dict={})
    except (ValueError, SyntaxError, TypeError, KeyError, NotImplementedError, RecursionError, MemoryError) as problem:
        why = "it is no condition" if isinstance(problem, SyntaxError) else str(problem).splitlines()[0]
        raise ValueError(f"query {shown(text)}: {why}; columns: {', '.join(columns)}") from None


def _check(tree: ast.Expression, columns: list[str]) -> None:
    for node in ast.walk(tree):
        if not isinstance(node, ALLOWED):
            raise ValueError(f"{type(node).__name__.lower()} is not allowed, only comparisons of columns and constants")
        if isinstance(node, ast.Name) and node.id not in columns:
            raise ValueError(f"there is no column {node.id!r}")
        if isinstance(node, ast.BinOp) and any(
            isinstance(side, ast.Constant | ast.List | ast.Tuple) and not _is_number(side)
            for side in (node.left, node.right)
        ):
            raise ValueError("arithmetic is of columns and numbers")
    if not isinstance(tree.body, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.BinOp):
        raise ValueError("it is no condition")


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)
