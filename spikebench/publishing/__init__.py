"""From the rows of a published run to the README: every measured number in its prose is a build product.

``docs/README.md.in`` is the README's source. It is a Jinja template, so that the text stays readable and a number is an
expression over the published rows, claims or figures: ``{{ claim("B1").estimate | decimals(1) }}``. Nobody edits
README.md itself. ``python docs/published/publish.py --render`` makes it and ``docs/published/results.md`` (the long
tables) from what lies in ``docs/published/``; ``make verify-readme`` (``--verify``) changes nothing and fails where

- the scoreboard is not what the claims' tests say of the published rows;
- README.md or results.md differ by a byte from what is made now, so that no digit is changed by hand;
- a number stands in the prose that no expression made and that ``docs/published/allowed-numbers.yaml`` does not hold
  with a source that says it. Rendered text is marked while it is checked (``values.OPEN``): the marks, and not the
  looks of a number, tell where it comes from. An expression that only repeats a typed number, ``{{ 3.05 }}``, gets no
  mark, and no filter takes one;
- a number is quoted as code outside the marked blocks of benchmarks.

Words count as numbers where they stand for measured ones ("half", "twice", "a million", "ten times"), not where they
count things ("two moons"). What a sentence says without a number ("learns more slowly") may be tied to the rows by
``{{ holds("learns more slowly", claim("B2").high < 0) }}``, which fails when they no longer say so. What is not
checked: whether an expression is the one that its sentence is about, which who reads the template sees, and figures'
JSON, of which some needs training traces that are not published.

The alternatives were comments behind each number, which double the length of a sentence, and a search for the numbers
of the README in the rows, which among 30,000 rows finds any.
"""
