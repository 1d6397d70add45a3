"""Names that a user may choose and that some output reads as something else."""

NASTY = (
    "cost $x_^$", "_plain_", "[abl] x", "[/x]", "*star", "=1+1", "+1", "-x", "@SUM(A1)", "#1", "100 %", "a & b",
    "<b>bold</b>",
    "back\\slash", "a\\", "quote\"s' `", "猫", "犬", "naïve", "🐱", "x" * 300, "two\nlines", "~tilde^{brace}", "%{x}",
    "&lt;",
    ":smile:", "a|b", "\x1b[31mred", "../up", "Case", "case", "--", "\tTab", "{{ 1 }}", "</script>",
)  # fmt: skip
