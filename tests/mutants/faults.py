"""The faults that are put into a source file, found by `ast` and written into its text."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FLIPPED = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
SWAPPED = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
LOGS = {"debug", "info", "warning", "warning_once", "info_once", "error", "exception", "warn", "print"}
HELP = {"help", "metavar", "description", "epilog", "title"}  # keywords of calls whose value is a text for people


@dataclass(frozen=True)
class Mutant:
    """One fault: the bytes `start:end` of the file are replaced."""

    file: str
    line: int
    kind: str
    start: int
    end: int
    before: str
    after: str
    text: str  # the first line of what is replaced

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.after.encode() + source[self.end :]

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What the list of equivalent mutants knows it by; it outlives changes elsewhere in the file."""
        return self.file, self.text, self.before, self.after


def faults_of(file: str, source: bytes) -> list[Mutant]:
    """All faults of a file, in the order of their position."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    found: dict[tuple[int, int, str], Mutant] = {}
    for kind, node, after in _faults(ast.parse(source)):
        start, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        before, text = source[start:end].decode(), lines[node.lineno - 1].decode().strip()
        mutant = Mutant(file, node.lineno, kind, start, end, before, after, text)
        if after not in (before, f"({before})"):
            found.setdefault((start, end, after), mutant)
    return sorted(found.values(), key=lambda mutant: (mutant.start, mutant.end, mutant.after))


def read_faults(root: Path, files: list[str]) -> list[Mutant]:
    return [mutant for file in files for mutant in faults_of(file, (root / file).read_bytes())]


Fault = tuple[str, ast.AST, str]  # kind, what is replaced, by what


def _faults(node: ast.AST) -> Iterator[Fault]:
    yield from _faults_at(node)
    for child in _children(node):
        yield from _faults(child)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """The parts that can hold a fault: no annotations, patterns, docstrings, and no texts for people."""
    match node:
        case ast.Raise() | ast.Import() | ast.ImportFrom() | ast.pattern() | ast.JoinedStr() | ast.Assert(test=None):
            return
        case ast.Call() if _is_log(node):
            return
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return
        case ast.Assign(targets=[ast.Name(id=name)]) if name in ("__all__", "logger"):
            return
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "type_comment", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            is_text = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            is_help = isinstance(child, ast.keyword) and child.arg in HELP
            if isinstance(child, ast.AST) and not is_text and not is_help:
                yield child


def _faults_at(node: ast.AST) -> Iterator[Fault]:
    match node:
        case ast.Compare():
            for i, op in enumerate(node.ops):
                for other in FLIPPED[type(op)]:
                    ops = [*node.ops[:i], other(), *node.ops[i + 1 :]]
                    yield "comparison", node, _text(ast.Compare(node.left, ops, node.comparators))
        case ast.BinOp(op=op) if type(op) in SWAPPED:
            yield "operator", node, _text(ast.BinOp(node.left, SWAPPED[type(op)](), node.right))
        case ast.AugAssign(op=op) if type(op) in SWAPPED:
            yield "operator", node, ast.unparse(ast.AugAssign(node.target, SWAPPED[type(op)](), node.value))
            yield "statement deleted", node, "pass"
        case ast.BoolOp():
            other = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
            yield "and/or", node, _text(ast.BoolOp(other, node.values))
        case ast.UnaryOp(op=op) if not isinstance(node.operand, ast.Constant):
            yield "not removed" if isinstance(op, ast.Not) else "operator", node, _text(node.operand)
        case ast.Constant():
            yield from (("constant", node, repr(value)) for value in _other_values(node.value))
        case ast.Slice():
            for name, step in (("lower", ast.Add()), ("upper", ast.Sub())):
                if (end := getattr(node, name)) is not None:
                    yield "slice", end, _text(ast.BinOp(end, step, ast.Constant(1)))
        case ast.If() | ast.IfExp():
            yield "branch", node.test, "True"
            yield "branch", node.test, "False"
        case ast.While():
            yield "branch", node.test, "False"
        case ast.comprehension():
            yield from (("branch", test, "True") for test in node.ifs)
        case ast.Return(value=value) if value is not None:
            yield "return", value, "None"
        case ast.Expr(value=ast.Call() as call) if not _is_log(call):
            yield "statement deleted", node, "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "statement deleted", node, "pass"
        case ast.Raise() | ast.Delete() | ast.Continue() | ast.Break():
            yield "statement deleted", node, "pass"


def _other_values(value: object) -> list[object]:
    match value:
        case bool():
            return [not value]
        case int():
            return [value - 1, value + 1]
        case float():
            return [value / 2, value + 1]
        case str():
            return ["XX" + value]
    return []


def _text(expression: ast.expr) -> str:
    return f"({ast.unparse(expression)})"


def _is_log(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name in LOGS
