"""Colours of figures, tables and MLflow's pages, as hexadecimal RGB."""

INK, RULE, GREY = "#1b1c1e", "#d8d9db", "#8f9194"
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
