-- Answers leave by age: see proxy/src/store/cache/retention.rs.
CREATE INDEX answer_by_age ON answer (answered_at);
