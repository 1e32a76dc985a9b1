"""Pure analyses: a Trace in, a frozen result out. One file an analysis; no file is opened, nothing printed or drawn."""
