DROP TABLE sessions;
DROP TABLE expenses;
DROP TABLE users;
