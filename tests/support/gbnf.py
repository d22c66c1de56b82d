"""Grammars that llama.cpp takes and refuses: the checker is held to both, and llama.cpp itself too."""

GOOD = [
    'root ::= "yes" | "no"',
    '# a remark\n\nroot ::= one two? # and another\none ::= [a-z]+\r\ntwo ::= " " [^\\]\\n]*\n',
    'root ::= (\n  "a" |\n  "b"\n) "c"\n',
    'root ::=\n  "a"',
    'root ::= "a" |\n  "b"',
    'root ::= "\\x41\\u00e9\\U0001F600\\"\\\\\\t" .',
    'root ::= [a-zA-Z0-9_-]{2} "x"{1,} [0-9]{0,3}',
    'root ::= "a" rest\nrest ::= "b" rest | ""',
    'root ::= item-1\nitem-1 ::= "a"',
    'root ::= ""',
    'root ::= "größe" | [ä-ü]',
]
BAD = [
    ("root ::= (", "expected ) to what was opened at line 1, column 10"),
    ('root ::= ("a" ]', "expected ) to what was opened at line 1, column 15"),
    ("root ::= foo", "there is no rule foo at line 1, column 10"),
    ("yes", "expected ::= at line 1, column 4"),
    ('start ::= "a"', "it has no rule called root"),
    ('root ::= "a', 'expected " at the end of the text at line 1, column 10'),
    ("root ::= [a", "expected ] at the end of the characters at line 1, column 10"),
    ('root ::= "\\q"', "expected an escape that is known at line 1, column 11"),
    ("root ::= *", "expected something to repeat before * at line 1, column 10"),
    ('root ::= "a"{x}', "expected a number of times, as in {2,5} at line 1, column 13"),
    # This one would keep llama.cpp busy until the memory is used up.
    ('root ::= "a"{3,1}', "expected the higher number of times last at line 1, column 13"),
    ('root ::= "a" )', "expected the end of a line at line 1, column 14"),
    ('root ::= "a"\n::= "b"', "expected the name of a rule at line 2, column 1"),
    ('root ::= root "a" | "b"', "its rule root begins with itself"),
    ('root ::= a\na ::= "x"? b\nb ::= a "y" | "z"', "its rule a begins with itself"),
]
