//! How generated code asks, without specialisation, what a value can do: method resolution
//! tries a type behind more references first, so the ladder's first rung wins.
