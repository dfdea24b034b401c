"""Names and files inside strings, which a library resolves in the caller's frame."""

from __future__ import annotations

from flow.probes.probe import edit, probe, write

AGES = {"ages.csv": "age,pay\n20,1\n40,2\n60,3\n"}

PANDAS = """
    import pandas as pd

    MIN = 30
    {names}

    def people():
        return pd.DataFrame({{"age": [20, 40, 60], "pay": [1, 2, 3]}})

    @cl.step
    def work() -> int:
        df = people()
        {body}
"""

SQL = """
    import polars as pl

    {names}

    @cl.step
    def work() -> int:
        {body}
"""


def pandas_probe(name: str, body: str, names: str = "", **options: object):
    """Change MIN from 30 to 50 in a project that uses it inside a string."""
    text = PANDAS.format(body=body, names=names)
    return probe("new", name, text, edit("MIN = 30", "MIN = 50"), **options)


FRAME = 'PEOPLE = pl.DataFrame({"age": [20, 40, 60]})'
MORE = edit("[20, 40, 60]", "[20, 40, 60, 80]")

PROBES = [
    pandas_probe("query-at-a-global", 'return len(df.query("age > @MIN"))'),
    pandas_probe("query-at-a-global-in-a-joined-string", 'return len(df.query("age > " "@MIN"))'),
    pandas_probe(
        "query-of-a-local-variable", 'text = "age > @MIN"\n        return len(df.query(text))'
    ),
    pandas_probe("query-of-a-global-text", "return len(df.query(RULE))", 'RULE = "age > @MIN"'),
    pandas_probe(
        "query-of-an-f-string", 'column = "age"\n        return len(df.query(f"{column} > @MIN"))'
    ),
    pandas_probe("query-by-keyword", 'return len(df.query(expr="age > @MIN"))'),
    pandas_probe("query-python-engine", 'return len(df.query("age > @MIN", engine="python"))'),
    pandas_probe(
        "query-method-bound-first", 'ask = df.query\n        return len(ask("age > @MIN"))'
    ),
    pandas_probe(
        "query-in-a-lambda", 'ask = lambda t: len(t.query("age > @MIN"))\n        return ask(df)'
    ),
    pandas_probe(
        "query-in-a-comprehension",
        'return sum(len(df.query(t)) for t in ["age > @MIN", "pay > 9"])',
    ),
    pandas_probe(
        "query-at-an-attribute",
        'return len(df.query("age > @Config.low"))',
        "class Config:\n        low = MIN",
        needs=("pandas>=3",),
    ),
    pandas_probe(
        "query-at-a-function",
        'return len(df.query("age > @limit()"))',
        "def limit():\n        return MIN",
    ),
    pandas_probe(
        "query-at-a-dict", "return len(df.query(\"age > @LIMITS['low']\"))", 'LIMITS = {"low": MIN}'
    ),
    pandas_probe("eval-of-a-frame", 'return int(df.eval("pay * @MIN").sum())'),
    pandas_probe("eval-assigns", 'return int(df.eval("due = pay * @MIN")["due"].sum())'),
    pandas_probe("eval-of-pandas", 'return int(pd.eval("df.pay * MIN").sum())'),
    pandas_probe("eval-of-python", 'return int(eval("MIN + 1"))'),
    pandas_probe(
        "exec-of-python",
        'space = dict(globals())\n        exec("found = MIN + 1", space)\n        return space["found"]',
    ),
    pandas_probe("format-of-globals", 'return int("{MIN}".format(**globals()))'),
    pandas_probe(
        "template-of-globals",
        'from string import Template\n        return int(Template("$MIN").substitute(globals()))',
    ),
    pandas_probe(
        "operator-attrgetter",
        'import operator, sys\n        return operator.attrgetter("MIN")(sys.modules[__name__])',
    ),
    pandas_probe(
        "getattr-by-an-f-string",
        "import sys\n        return getattr(sys.modules[__name__], f\"M{'IN'}\")",
    ),
    pandas_probe("globals-by-name", 'return globals()["MI" + "N"]'),
    pandas_probe(
        "vars-of-own-module", 'import sys\n        return vars(sys.modules[__name__])["MIN"]'
    ),
    pandas_probe("frame-globals", 'import sys\n        return sys._getframe().f_globals["MIN"]'),
    pandas_probe(
        "inspect-current-frame",
        'import inspect\n        return inspect.currentframe().f_globals["MIN"]',
    ),
    pandas_probe("function-globals", 'return people.__globals__["MIN"]'),
    probe(
        "new",
        "query-in-a-helper-of-another-module",
        """
        import rules
        import pandas as pd

        @cl.step
        def work() -> int:
            return len(rules.adults(pd.DataFrame({"age": [20, 40, 60]})))
        """,
        edit("MIN = 30", "MIN = 50", "rules.py"),
        {"rules.py": 'MIN = 30\n\ndef adults(df):\n    return df.query("age > @MIN")\n'},
    ),
    probe(
        "new",
        "query-at-an-imported-name",
        """
        import pandas as pd
        from limits import MIN

        @cl.step
        def work() -> int:
            return len(pd.DataFrame({"age": [20, 40, 60]}).query("age > @MIN"))
        """,
        edit("30", "50", "limits.py"),
        {"limits.py": "MIN = 30\n"},
    ),
    probe(
        "new",
        "query-at-an-imported-module",
        """
        import pandas as pd
        import limits

        @cl.step
        def work() -> int:
            return len(pd.DataFrame({"age": [20, 40, 60]}).query("age > @limits.MIN"))
        """,
        edit("30", "50", "limits.py"),
        {"limits.py": "MIN = 30\n"},
    ),
    probe(
        "new",
        "query-text-read-from-a-file",
        """
        import pandas as pd

        @cl.step
        def work(rule: Path = Path("rule.txt")) -> int:
            return len(pd.DataFrame({"age": [20, 40, 60]}).query(rule.read_text()))
        """,
        write("rule.txt", "age > 50"),
        {"rule.txt": "age > 30"},
    ),
    probe(
        "same",
        "query-with-another-global-edited",
        """
        import pandas as pd

        MIN = 30
        OTHER = 1

        @cl.step
        def work() -> int:
            return len(pd.DataFrame({"age": [20, 40, 60]}).query("age > @MIN"))
        """,
        edit("OTHER = 1", "OTHER = 2"),
    ),
    probe(
        "same",
        "query-of-columns-alone",
        """
        import pandas as pd

        pay = 1

        @cl.step
        def work() -> int:
            return len(pd.DataFrame({"age": [20, 40], "pay": [1, 50]}).query("age > pay"))
        """,
        edit("pay = 1", "pay = 2"),
    ),
    # SQL
    probe(
        "new",
        "polars-sql-of-a-local-of-the-step",
        SQL.format(
            names=FRAME,
            body='people = PEOPLE.filter(pl.col("age") > 10)\n        return len(pl.sql("SELECT * FROM people").collect())',
        ),
        MORE,
    ),
    probe(
        "new",
        "polars-sql-of-a-local-of-the-pipeline",
        SQL.format(names="", body='return len(pl.sql("SELECT * FROM people").collect())')
        + '\n    @cl.pipeline\n    def main():\n        people = pl.DataFrame({"age": [20, 40, 60]})\n        work()\n',
        MORE,
    ),
    probe(
        "new",
        "polars-sql-in-a-helper",
        SQL.format(
            names=FRAME
            + '\n    def count():\n        return pl.sql("SELECT count(*) AS n FROM people WHERE age > 30", eager=True)["n"][0]',
            body="people = PEOPLE.clone()\n        return count()",
        ),
        MORE,
    ),
    probe(
        "new",
        "polars-sql-context-of-a-global-frame",
        SQL.format(
            names=FRAME,
            body='context = pl.SQLContext({"people": PEOPLE})\n        return len(context.execute("SELECT * FROM people", eager=True))',
        ),
        MORE,
    ),
    probe(
        "new",
        "polars-sql-context-by-name",
        SQL.format(
            names=FRAME,
            body='return len(pl.SQLContext(p=PEOPLE).execute("SELECT * FROM p", eager=True))',
        ),
        MORE,
    ),
    probe(
        "new",
        "polars-sql-context-of-the-module",
        SQL.format(
            names=FRAME + "\n    CTX = pl.SQLContext(p=PEOPLE)",
            body='return len(CTX.execute("SELECT * FROM p", eager=True))',
        ),
        MORE,
    ),
    probe(
        "new",
        "polars-frame-sql",
        SQL.format(
            names=FRAME + '\n    ASK = "SELECT * FROM self WHERE age > 30"',
            body="return len(PEOPLE.sql(ASK))",
        ),
        edit("> 30", "> 50"),
    ),
    probe(
        "new",
        "polars-sql-expr",
        SQL.format(
            names=FRAME, body='return int(PEOPLE.select(pl.sql_expr("age + 1"))["age"].sum())'
        ),
        edit("age + 1", "age + 2"),
    ),
    probe(
        "new",
        "polars-sql-reads-a-csv",
        SQL.format(
            names="",
            body='return pl.sql("SELECT count(*) AS n FROM read_csv(\'ages.csv\')", eager=True)["n"][0]',
        ),
        write("ages.csv", "age,pay\n20,1\n"),
        AGES,
    ),
    probe(
        "new",
        "polars-sql-context-reads-a-csv",
        SQL.format(
            names="",
            body="return len(pl.SQLContext().execute(\"SELECT * FROM read_csv('ages.csv')\", eager=True))",
        ),
        write("ages.csv", "age,pay\n20,1\n"),
        AGES,
    ),
    probe(
        "new",
        "duckdb-sql-of-a-global",
        """
        import duckdb
        import pandas as pd

        PEOPLE = pd.DataFrame({"age": [20, 40, 60]})

        @cl.step
        def work() -> int:
            return duckdb.sql("SELECT count(*) FROM PEOPLE").fetchone()[0]
        """,
        MORE,
        needs=("duckdb",),
    ),
    probe(
        "new",
        "duckdb-reads-a-csv",
        """
        import duckdb

        @cl.step
        def work() -> int:
            return duckdb.sql("SELECT count(*) FROM 'ages.csv'").fetchone()[0]
        """,
        write("ages.csv", "age,pay\n20,1\n"),
        AGES,
        needs=("duckdb",),
    ),
    probe(
        "new",
        "sqlite-query-text",
        """
        import sqlite3

        ASK = "SELECT 1"

        @cl.step
        def work() -> int:
            return sqlite3.connect(":memory:").execute(ASK).fetchone()[0]
        """,
        edit("SELECT 1", "SELECT 2"),
    ),
]
