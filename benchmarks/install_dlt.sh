# An environment with dlt, apart from the one of the checkout, so that it disturbs nothing.
# install_dlt.sh PYTHON FOLDER: the interpreter that makes it, and where. What failed leaves nothing.
set -eu
"$2/bin/python" -c "import dlt" 2>/dev/null && exit 0
{ "$1" -m venv "$2" && "$2/bin/python" -m pip install --quiet --disable-pip-version-check 'dlt[parquet]'; } ||
    { rm -rf "$2"; exit 1; }
