BEGIN TRANSACTION;
CREATE TABLE enrolled (
  kind TEXT NOT NULL CHECK (kind IN ('launcher', 'proxy')),
  name TEXT NOT NULL,
  public_key BLOB NOT NULL UNIQUE CHECK (length(public_key) = 32),
  seq INTEGER NOT NULL CHECK (seq >= 0),
  last_sha256 TEXT NOT NULL,
  PRIMARY KEY (kind, name)
) STRICT;
INSERT INTO "enrolled" VALUES('launcher','launcher-1',X'14AF43865F534B09FB2E26B1453A26B6793A2F5731502E16BDA8FCB031F23791',0,'0000000000000000000000000000000000000000000000000000000000000000');
INSERT INTO "enrolled" VALUES('proxy','proxy-1',X'5810F92D9A83E6A6B29C182A5DFC189DF2EA66FE62B9A697A485EE7440E297CC',1,'aa522a0b24e8cbe8c143d5b469b15985d13ffdaa6f6970d3516ef3e5158029dc');
CREATE TABLE events (
  seq INTEGER PRIMARY KEY CHECK (seq >= 1),
  at_unix_ms INTEGER NOT NULL,
  reason TEXT NOT NULL,
  actor TEXT NOT NULL,
  worker_id TEXT,
  lease_id TEXT,
  detail TEXT NOT NULL,
  previous_sha256 TEXT NOT NULL UNIQUE,
  sha256 TEXT NOT NULL UNIQUE
) STRICT;
INSERT INTO "events" VALUES(1,1800000000000,'fleet.started','fleet',NULL,NULL,'{"epoch":1}','0000000000000000000000000000000000000000000000000000000000000000','25506945b85c61b358b39887d2e043472c4e06bb864adc32973c11adf9dbdb19');
INSERT INTO "events" VALUES(2,1800000000000,'fleet.launcher_enrolled','alice',NULL,NULL,'{"key_sha256":"1635c31200cf34ebf4c54de4cd25764c2d5eab2da1d14c608cfc9e8460c8c4c6","name":"launcher-1"}','25506945b85c61b358b39887d2e043472c4e06bb864adc32973c11adf9dbdb19','ba4ab7746cbabec1372bfba65374e4050f89f5cab1fd26112a3038e83ca22f2a');
INSERT INTO "events" VALUES(3,1800000000000,'fleet.proxy_enrolled','alice',NULL,NULL,'{"key_sha256":"b6f5ac520cf64038ecc734c975ac476c8ab1a4d7f516bf22ad0f985b7dbd04cc","name":"proxy-1"}','ba4ab7746cbabec1372bfba65374e4050f89f5cab1fd26112a3038e83ca22f2a','c32e03f30630fc9df2b1e181fe567b6dd1243e8736b399a0faa1bc5bae413596');
INSERT INTO "events" VALUES(4,1800000000000,'fleet.reference_values_added','alice',NULL,NULL,'{"digest_sha256":"1111111111111111111111111111111111111111111111111111111111111111","field":"image"}','c32e03f30630fc9df2b1e181fe567b6dd1243e8736b399a0faa1bc5bae413596','839a723da73e3d549cc9fb2f1dcedf6b761a6af0f1f8ad521b40c2dbaf69021e');
INSERT INTO "events" VALUES(5,1800000000000,'fleet.reference_values_added','alice',NULL,NULL,'{"digest_sha256":"2222222222222222222222222222222222222222222222222222222222222222","field":"build"}','839a723da73e3d549cc9fb2f1dcedf6b761a6af0f1f8ad521b40c2dbaf69021e','dbf957a0ef5d86897cbf85b8979f9e180df0e411bbe33f784952fafcc39f207b');
INSERT INTO "events" VALUES(6,1800000000000,'fleet.reference_values_added','alice',NULL,NULL,'{"digest_sha256":"3333333333333333333333333333333333333333333333333333333333333333","field":"artifact"}','dbf957a0ef5d86897cbf85b8979f9e180df0e411bbe33f784952fafcc39f207b','f3fc2e9154c3d0aae4420d7ae1237ff30798abbdbb8e0cccb3e50b854cf402c9');
INSERT INTO "events" VALUES(7,1800000000000,'worker.registered','attestation','00000000000000000000000001',NULL,'{"attestation_epoch":1,"binding_level":"observed","binding_proxy_id":"proxy-1","evidence_identity":"unit-00000000000000000000000001","evidence_sha256":"f37b5f80e082e7a7e4d33c2bd6ae2eebca2c37b515951022a66157555c57a8b6","key_sha256":"11eb74763c999a5e8a7966e8f93d6cad91c55fc2ef92ba5d44b25e1fe7527b74"}','f3fc2e9154c3d0aae4420d7ae1237ff30798abbdbb8e0cccb3e50b854cf402c9','0822c44e4b15cd5848c4e408544dd0ac0cccf450668b00e3601f7e56fee95a7b');
INSERT INTO "events" VALUES(8,1800000000000,'worker.registered','attestation','00000000000000000000000002',NULL,'{"attestation_epoch":1,"binding_level":"observed","binding_proxy_id":"proxy-1","evidence_identity":"unit-00000000000000000000000002","evidence_sha256":"404b39faa086224705ab7da2aa07830d503ae536c1ceee1a13c2cb413ec4cfd3","key_sha256":"6520e4c60a09b77c800b1d8345e79d47ed0ffff0f30d8000f3220fb0adec61b1"}','0822c44e4b15cd5848c4e408544dd0ac0cccf450668b00e3601f7e56fee95a7b','b95a818c22a900f69d3bf3790e7ee6eec9513fda24bead09c6533498e5740565');
INSERT INTO "events" VALUES(9,1800000000000,'worker.registered','attestation','00000000000000000000000003',NULL,'{"attestation_epoch":1,"binding_level":"observed","binding_proxy_id":"proxy-1","evidence_identity":"unit-00000000000000000000000003","evidence_sha256":"3b2d7a44cbd12ec2563a219d4420da59273070b776f2dacbc714f9dd41aaee13","key_sha256":"531a058270a732efe5d689c0b99973992ebda8eac94cf42b2e5317993206b5ba"}','b95a818c22a900f69d3bf3790e7ee6eec9513fda24bead09c6533498e5740565','4159133ee2e914906fb6558adf672effe179abd81e02c30bc23127a8e7ca7439');
INSERT INTO "events" VALUES(10,1800000000000,'worker.registered','attestation','00000000000000000000000004',NULL,'{"attestation_epoch":1,"binding_level":"observed","binding_proxy_id":"proxy-1","evidence_identity":"unit-00000000000000000000000004","evidence_sha256":"ff06468afc16cc60d8c50c5aa67e85afb8fcb519e07c9bfe1e835fbdf996a88b","key_sha256":"2b6151618c6f7dfd51dfa23aa07f75f7d11cdcd9b6f26a69e9cf91ffda38ad37"}','4159133ee2e914906fb6558adf672effe179abd81e02c30bc23127a8e7ca7439','2d2976990894291cf9e542065d8c2b6f2d051337d67052d085ba5c53fb4b3a2e');
INSERT INTO "events" VALUES(11,1800000000000,'worker.registered','attestation','00000000000000000000000005',NULL,'{"attestation_epoch":1,"binding_level":"observed","binding_proxy_id":"proxy-1","evidence_identity":"unit-00000000000000000000000005","evidence_sha256":"7767bf52b75a4c58b148e79aed8f8fb32a4376fdbc08ca480403c55d4c308696","key_sha256":"5b253e876d3074e6dbf999165ba8467916335f16533a15704cbc3dc09a6a3603"}','2d2976990894291cf9e542065d8c2b6f2d051337d67052d085ba5c53fb4b3a2e','fa1a68eb663a568b3d5d342de093711f55a5b24d85febecbc1a355726cdbb31e');
INSERT INTO "events" VALUES(12,1800000000010,'grant.created','alice',NULL,NULL,'{"egress_profile":"profile","expires_at_unix_ms":1800003600010,"grant_id":"01MCC5RM0ANW364AD8RDG7HDD2","principal":"principal","run_id":"run-live","tool_name":"tool"}','fa1a68eb663a568b3d5d342de093711f55a5b24d85febecbc1a355726cdbb31e','8c213218a230d3331c1c387db8fb1235b592675fdd485aa248b8f7c6a78d1d2d');
INSERT INTO "events" VALUES(13,1800000000010,'worker.assigned','00000000000000000000000001','00000000000000000000000001','01MCC5RM0ANW364AD8RDG7HDD3','{"egress_profile":"profile","expires_at_unix_ms":1800000060010,"fence":1,"grant_id":"01MCC5RM0ANW364AD8RDG7HDD2","run_id":"run-live"}','8c213218a230d3331c1c387db8fb1235b592675fdd485aa248b8f7c6a78d1d2d','a99b1c60aa91609347cb9a8ef322281a74dc2124e78e182bfa4a1d24ec443294');
INSERT INTO "events" VALUES(14,1800000000010,'grant.created','alice',NULL,NULL,'{"egress_profile":"profile","expires_at_unix_ms":1800003600010,"grant_id":"01MCC5RM0ANW364AD8RDG7HDD4","principal":"principal","run_id":"run-caught","tool_name":"tool"}','a99b1c60aa91609347cb9a8ef322281a74dc2124e78e182bfa4a1d24ec443294','06cf31c4021cae391a3c8f44bd8100572e7d77fe1b414f666d5ac87d2da734dc');
INSERT INTO "events" VALUES(15,1800000000010,'worker.assigned','00000000000000000000000002','00000000000000000000000002','01MCC5RM0ANW364AD8RDG7HDD5','{"egress_profile":"profile","expires_at_unix_ms":1800000060010,"fence":2,"grant_id":"01MCC5RM0ANW364AD8RDG7HDD4","run_id":"run-caught"}','06cf31c4021cae391a3c8f44bd8100572e7d77fe1b414f666d5ac87d2da734dc','a3602840f55acb58b9827d140936f2da93d4d8fb1beacaabddb972e412cec3cd');
INSERT INTO "events" VALUES(16,1800000000010,'worker.lease_revoked','proxy:proxy-1','00000000000000000000000002','01MCC5RM0ANW364AD8RDG7HDD5','{"fence":2,"run_id":"run-caught","why":"worker.quarantined_by_egress"}','a3602840f55acb58b9827d140936f2da93d4d8fb1beacaabddb972e412cec3cd','9aaad77b6b3b479a3f106523cd6243541dce040984fde3edcc9b6b9d8d099051');
INSERT INTO "events" VALUES(17,1800000000010,'worker.quarantined_by_egress','proxy:proxy-1','00000000000000000000000002','01MCC5RM0ANW364AD8RDG7HDD5','{"evidence_sha256":"aa522a0b24e8cbe8c143d5b469b15985d13ffdaa6f6970d3516ef3e5158029dc","why":"egress.address_private"}','9aaad77b6b3b479a3f106523cd6243541dce040984fde3edcc9b6b9d8d099051','ec1a9cfb23f4d812a450bfa492f3f85e97dab421aa3c8d56d7e6352873b5fafb');
INSERT INTO "events" VALUES(18,1800000000010,'grant.created','alice',NULL,NULL,'{"egress_profile":"profile","expires_at_unix_ms":1800003600010,"grant_id":"01MCC5RM0ANW364AD8RDG7HDD6","principal":"principal","run_id":"run-dirty","tool_name":"tool"}','ec1a9cfb23f4d812a450bfa492f3f85e97dab421aa3c8d56d7e6352873b5fafb','3e6b292769407808b4d48f5ef08b407af37410520d113eeb98e7f4a5e35b3886');
INSERT INTO "events" VALUES(19,1800000000010,'worker.assigned','00000000000000000000000003','00000000000000000000000003','01MCC5RM0ANW364AD8RDG7HDD7','{"egress_profile":"profile","expires_at_unix_ms":1800000060010,"fence":3,"grant_id":"01MCC5RM0ANW364AD8RDG7HDD6","run_id":"run-dirty"}','3e6b292769407808b4d48f5ef08b407af37410520d113eeb98e7f4a5e35b3886','90e6930c2a3ebb96ef33fe183fec43f358244143066149069c8eb2e422397845');
INSERT INTO "events" VALUES(20,1800000000010,'worker.cleanup_failed','00000000000000000000000003','00000000000000000000000003','01MCC5RM0ANW364AD8RDG7HDD7','{"fence":3,"run_id":"run-dirty"}','90e6930c2a3ebb96ef33fe183fec43f358244143066149069c8eb2e422397845','f12d42c0f2ef5c6a5469eda92ce13dae049d96f5774738ae84fd9d448879207f');
INSERT INTO "events" VALUES(21,1800000000010,'grant.created','alice',NULL,NULL,'{"egress_profile":"profile","expires_at_unix_ms":1800003600010,"grant_id":"01MCC5RM0ANW364AD8RDG7HDD8","principal":"principal","run_id":"run-done","tool_name":"tool"}','f12d42c0f2ef5c6a5469eda92ce13dae049d96f5774738ae84fd9d448879207f','55f011e77b295004fac9dbb2700dc6fb2a1e3b5e1a21bdb4fead96dc878907f0');
INSERT INTO "events" VALUES(22,1800000000010,'worker.assigned','00000000000000000000000005','00000000000000000000000005','01MCC5RM0ANW364AD8RDG7HDD9','{"egress_profile":"profile","expires_at_unix_ms":1800000060010,"fence":4,"grant_id":"01MCC5RM0ANW364AD8RDG7HDD8","run_id":"run-done"}','55f011e77b295004fac9dbb2700dc6fb2a1e3b5e1a21bdb4fead96dc878907f0','e8ff45292e32d7d5785b0150f3ffc67bbef432aff05c206ffa66e39b210e50dd');
INSERT INTO "events" VALUES(23,1800000000010,'worker.completed','00000000000000000000000005','00000000000000000000000005','01MCC5RM0ANW364AD8RDG7HDD9','{"fence":4,"run_id":"run-done"}','e8ff45292e32d7d5785b0150f3ffc67bbef432aff05c206ffa66e39b210e50dd','3b68268a42f4c7796e91ad66a6d1b13f79f1fc653af152d520e8e61341911701');
INSERT INTO "events" VALUES(24,1800000000010,'worker.banned_by_operator','alice','00000000000000000000000004',NULL,'{"evidence_sha256":null,"why":"why"}','3b68268a42f4c7796e91ad66a6d1b13f79f1fc653af152d520e8e61341911701','ed59642a5fb44e20d728ede77350446ce868e838b64f8748546430737da7378d');
INSERT INTO "events" VALUES(25,1800000000010,'grant.created','alice',NULL,NULL,'{"egress_profile":"profile","expires_at_unix_ms":1800003600010,"grant_id":"01MCC5RM0ANW364AD8RDG7HDDA","principal":"principal","run_id":"run-open","tool_name":"tool"}','ed59642a5fb44e20d728ede77350446ce868e838b64f8748546430737da7378d','8b7b4a744e591f9f8e35c1e3e766d821eaf9bf8e3373c4d3342611664136b520');
CREATE TABLE evidence (
  evidence_sha256 TEXT PRIMARY KEY,
  proxy_id TEXT NOT NULL,
  seq INTEGER NOT NULL CHECK (seq >= 1),
  worker_id TEXT NOT NULL,
  received_at_unix_ms INTEGER NOT NULL,
  at_unix_ms INTEGER NOT NULL,
  outcome TEXT NOT NULL
    CHECK (outcome IN ('quarantined', 'already_quarantined', 'struck', 'recorded')),
  payload BLOB NOT NULL,
  UNIQUE (proxy_id, seq)
) STRICT;
INSERT INTO "evidence" VALUES('aa522a0b24e8cbe8c143d5b469b15985d13ffdaa6f6970d3516ef3e5158029dc','proxy-1',1,'00000000000000000000000002',1800000000010,1800000000010,'quarantined',X'7B2270726F78795F6964223A2270726F78792D31222C22736571223A312C2270726576696F75735F736861323536223A2230303030303030303030303030303030303030303030303030303030303030303030303030303030303030303030303030303030303030303030303030303030222C22776F726B65725F6964223A223030303030303030303030303030303030303030303030303032222C226C656173655F6964223A2230314D434335524D30414E573336344144385244473748444435222C2266656E6365223A322C22726561736F6E223A226567726573732E616464726573735F70726976617465222C22636F6E73657175656E6365223A2271756172616E74696E65222C22737472696B655F6C696D6974223A302C22737472696B655F77696E646F775F6D73223A302C2272756C655F6964223A2272756C652D31222C22706F6C6963795F66696C65223A22706F6C6963792E79616D6C222C22706F6C6963795F6C696E65223A372C22706F6C6963795F646967657374223A22706F6C696379222C2266696E6765727072696E74223A2266666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666222C22746172676574223A2231302E302E302E313A343433222C226465636973696F6E5F6964223A223030303030303030303030303030303030303030303030303031222C2261745F756E69785F6D73223A313830303030303030303031307D');
CREATE TABLE grants (
  grant_id TEXT PRIMARY KEY,
  run_id TEXT NOT NULL,
  expires_at_unix_ms INTEGER NOT NULL,
  uses INTEGER NOT NULL CHECK (uses >= 0),
  max_uses INTEGER NOT NULL CHECK (max_uses >= 1),
  withdrawn INTEGER NOT NULL CHECK (withdrawn IN (0, 1)),
  body TEXT NOT NULL,
  CHECK (uses <= max_uses)
) STRICT;
INSERT INTO "grants" VALUES('01MCC5RM0ANW364AD8RDG7HDD2','run-live',1800003600010,1,1,0,'[{"grant_id":"01MCC5RM0ANW364AD8RDG7HDD2","run_id":"run-live","tool_name":"tool","principal":"principal","egress_profile":"profile","expires_at_unix_ms":1800003600010,"approved_by":"alice","max_uses":1,"uses":1,"withdrawn":false}]');
INSERT INTO "grants" VALUES('01MCC5RM0ANW364AD8RDG7HDD4','run-caught',1800003600010,1,1,0,'[{"grant_id":"01MCC5RM0ANW364AD8RDG7HDD4","run_id":"run-caught","tool_name":"tool","principal":"principal","egress_profile":"profile","expires_at_unix_ms":1800003600010,"approved_by":"alice","max_uses":1,"uses":1,"withdrawn":false}]');
INSERT INTO "grants" VALUES('01MCC5RM0ANW364AD8RDG7HDD6','run-dirty',1800003600010,1,1,0,'[{"grant_id":"01MCC5RM0ANW364AD8RDG7HDD6","run_id":"run-dirty","tool_name":"tool","principal":"principal","egress_profile":"profile","expires_at_unix_ms":1800003600010,"approved_by":"alice","max_uses":1,"uses":1,"withdrawn":false}]');
INSERT INTO "grants" VALUES('01MCC5RM0ANW364AD8RDG7HDD8','run-done',1800003600010,1,1,0,'[{"grant_id":"01MCC5RM0ANW364AD8RDG7HDD8","run_id":"run-done","tool_name":"tool","principal":"principal","egress_profile":"profile","expires_at_unix_ms":1800003600010,"approved_by":"alice","max_uses":1,"uses":1,"withdrawn":false}]');
INSERT INTO "grants" VALUES('01MCC5RM0ANW364AD8RDG7HDDA','run-open',1800003600010,0,1,0,'[{"grant_id":"01MCC5RM0ANW364AD8RDG7HDDA","run_id":"run-open","tool_name":"tool","principal":"principal","egress_profile":"profile","expires_at_unix_ms":1800003600010,"approved_by":"alice","max_uses":1,"uses":0,"withdrawn":false}]');
CREATE TABLE leases (
  lease_id TEXT PRIMARY KEY,
  fence INTEGER NOT NULL UNIQUE CHECK (fence >= 1),
  worker_id TEXT NOT NULL,
  run_id TEXT NOT NULL,
  grant_id TEXT NOT NULL REFERENCES grants (grant_id),
  live INTEGER NOT NULL CHECK (live IN (0, 1)),
  body TEXT NOT NULL
) STRICT;
INSERT INTO "leases" VALUES('01MCC5RM0ANW364AD8RDG7HDD3',1,'00000000000000000000000001','run-live','01MCC5RM0ANW364AD8RDG7HDD2',1,'[{"lease_id":"01MCC5RM0ANW364AD8RDG7HDD3","fence":1,"worker_id":"00000000000000000000000001","run_id":"run-live","grant_id":"01MCC5RM0ANW364AD8RDG7HDD2","principal":"principal","egress_profile":"profile","egress_secret_sha256":"9e3a4f50595a3f2811424b83d437a6e3f16899ceb5049484baf766b4afa01e47","required_capabilities":[],"workspace_scope":{"workspace_root":"/job/run","allowed_paths":["/job/run/in"],"read_only":false},"granted_at_unix_ms":1800000000010,"expires_at_unix_ms":1800000060010,"grant_expires_at_unix_ms":1800003600010,"status":"assigned","ended_at_unix_ms":null}]');
INSERT INTO "leases" VALUES('01MCC5RM0ANW364AD8RDG7HDD5',2,'00000000000000000000000002','run-caught','01MCC5RM0ANW364AD8RDG7HDD4',0,'[{"lease_id":"01MCC5RM0ANW364AD8RDG7HDD5","fence":2,"worker_id":"00000000000000000000000002","run_id":"run-caught","grant_id":"01MCC5RM0ANW364AD8RDG7HDD4","principal":"principal","egress_profile":"profile","egress_secret_sha256":"39fe3f136a494b4879f33c584347c2d42e1e2cccab9887f7fc9cf1a7cfb08502","required_capabilities":[],"workspace_scope":{"workspace_root":"/job/run","allowed_paths":["/job/run/in"],"read_only":false},"granted_at_unix_ms":1800000000010,"expires_at_unix_ms":1800000060010,"grant_expires_at_unix_ms":1800003600010,"status":"revoked","ended_at_unix_ms":1800000000010}]');
INSERT INTO "leases" VALUES('01MCC5RM0ANW364AD8RDG7HDD7',3,'00000000000000000000000003','run-dirty','01MCC5RM0ANW364AD8RDG7HDD6',0,'[{"lease_id":"01MCC5RM0ANW364AD8RDG7HDD7","fence":3,"worker_id":"00000000000000000000000003","run_id":"run-dirty","grant_id":"01MCC5RM0ANW364AD8RDG7HDD6","principal":"principal","egress_profile":"profile","egress_secret_sha256":"44f87a3922ede5d63bbd163afe15bf1a36b3dc869b12a98f98d2211881ba7f96","required_capabilities":[],"workspace_scope":{"workspace_root":"/job/run","allowed_paths":["/job/run/in"],"read_only":false},"granted_at_unix_ms":1800000000010,"expires_at_unix_ms":1800000060010,"grant_expires_at_unix_ms":1800003600010,"status":"cleanup_failed","ended_at_unix_ms":1800000000010}]');
INSERT INTO "leases" VALUES('01MCC5RM0ANW364AD8RDG7HDD9',4,'00000000000000000000000005','run-done','01MCC5RM0ANW364AD8RDG7HDD8',0,'[{"lease_id":"01MCC5RM0ANW364AD8RDG7HDD9","fence":4,"worker_id":"00000000000000000000000005","run_id":"run-done","grant_id":"01MCC5RM0ANW364AD8RDG7HDD8","principal":"principal","egress_profile":"profile","egress_secret_sha256":"ed2879c2d438639c61f9a46df830fb0de6c9e37632199c3b7b6604ef8b3dfa34","required_capabilities":[],"workspace_scope":{"workspace_root":"/job/run","allowed_paths":["/job/run/in"],"read_only":false},"granted_at_unix_ms":1800000000010,"expires_at_unix_ms":1800000060010,"grant_expires_at_unix_ms":1800003600010,"status":"completed","ended_at_unix_ms":1800000000010}]');
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
INSERT INTO "meta" VALUES('schema_version','1');
INSERT INTO "meta" VALUES('high_water_unix_ms','1800000000010');
INSERT INTO "meta" VALUES('chain_seq','25');
INSERT INTO "meta" VALUES('chain_sha256','8b7b4a744e591f9f8e35c1e3e766d821eaf9bf8e3373c4d3342611664136b520');
INSERT INTO "meta" VALUES('epoch','1');
INSERT INTO "meta" VALUES('highest_fence','4');
CREATE TABLE reference_values (
  digest_field TEXT NOT NULL CHECK (digest_field IN ('image', 'build', 'artifact')),
  digest_sha256 TEXT NOT NULL CHECK (length(digest_sha256) = 64),
  PRIMARY KEY (digest_field, digest_sha256)
) STRICT;
INSERT INTO "reference_values" VALUES('image','1111111111111111111111111111111111111111111111111111111111111111');
INSERT INTO "reference_values" VALUES('build','2222222222222222222222222222222222222222222222222222222222222222');
INSERT INTO "reference_values" VALUES('artifact','3333333333333333333333333333333333333333333333333333333333333333');
CREATE TABLE tombstones (
  kind TEXT NOT NULL CHECK (kind IN ('worker', 'key', 'identity')),
  value TEXT NOT NULL,
  PRIMARY KEY (kind, value)
) STRICT;
INSERT INTO "tombstones" VALUES('worker','00000000000000000000000004');
INSERT INTO "tombstones" VALUES('identity','unit-00000000000000000000000004');
INSERT INTO "tombstones" VALUES('key','2b6151618c6f7dfd51dfa23aa07f75f7d11cdcd9b6f26a69e9cf91ffda38ad37');
CREATE TABLE workers (
  worker_id TEXT PRIMARY KEY,
  evidence_identity TEXT NOT NULL UNIQUE,
  key_sha256 TEXT NOT NULL UNIQUE,
  admission TEXT NOT NULL CHECK (admission IN ('active', 'quarantined', 'banned')),
  body TEXT NOT NULL
) STRICT;
INSERT INTO "workers" VALUES('00000000000000000000000001','unit-00000000000000000000000001','11eb74763c999a5e8a7966e8f93d6cad91c55fc2ef92ba5d44b25e1fe7527b74','active','[{"worker_id":"00000000000000000000000001","evidence_identity":"unit-00000000000000000000000001","proof":{"public_key":"y2mOEzo5CxyTnvfLt07J4zfXXtBGBSAkh490W5yylms=","key_sha256":"11eb74763c999a5e8a7966e8f93d6cad91c55fc2ef92ba5d44b25e1fe7527b74","artifact_digest_sha256":"3333333333333333333333333333333333333333333333333333333333333333","capabilities":[],"attested_until_unix_ms":1800000900000,"binding_proxy_id":"proxy-1","bound_at_unix_ms":1800000000000,"attestation_epoch":1,"image_digest_sha256":"1111111111111111111111111111111111111111111111111111111111111111","build_digest_sha256":"2222222222222222222222222222222222222222222222222222222222222222","binding_level":2},"admission":"active","eligibility":"eligible","liveness":"live","work":"assigned","attestation_epoch":1,"session_epoch":1,"cleanup_verified":false,"failed_at_attestation_epoch":0,"drain_deadline_unix_ms":null,"last_lease_id":"01MCC5RM0ANW364AD8RDG7HDD3","last_fence":1,"quarantine":null,"candidate":null}]');
INSERT INTO "workers" VALUES('00000000000000000000000002','unit-00000000000000000000000002','6520e4c60a09b77c800b1d8345e79d47ed0ffff0f30d8000f3220fb0adec61b1','quarantined','[{"worker_id":"00000000000000000000000002","evidence_identity":"unit-00000000000000000000000002","proof":{"public_key":"7nKNjBJvDnHoflFiMlS7VajcnhBhmbumAQmmmJQFfWg=","key_sha256":"6520e4c60a09b77c800b1d8345e79d47ed0ffff0f30d8000f3220fb0adec61b1","artifact_digest_sha256":"3333333333333333333333333333333333333333333333333333333333333333","capabilities":[],"attested_until_unix_ms":1800000900000,"binding_proxy_id":"proxy-1","bound_at_unix_ms":1800000000000,"attestation_epoch":1,"image_digest_sha256":"1111111111111111111111111111111111111111111111111111111111111111","build_digest_sha256":"2222222222222222222222222222222222222222222222222222222222222222","binding_level":2},"admission":"quarantined","eligibility":"eligible","liveness":"live","work":"orphaned","attestation_epoch":1,"session_epoch":1,"cleanup_verified":false,"failed_at_attestation_epoch":0,"drain_deadline_unix_ms":null,"last_lease_id":"01MCC5RM0ANW364AD8RDG7HDD5","last_fence":2,"quarantine":{"reason":"egress.address_private","at_unix_ms":1800000000010,"evidence_sha256":"aa522a0b24e8cbe8c143d5b469b15985d13ffdaa6f6970d3516ef3e5158029dc","attestation_epoch":1,"key_sha256":"6520e4c60a09b77c800b1d8345e79d47ed0ffff0f30d8000f3220fb0adec61b1"},"candidate":null}]');
INSERT INTO "workers" VALUES('00000000000000000000000003','unit-00000000000000000000000003','531a058270a732efe5d689c0b99973992ebda8eac94cf42b2e5317993206b5ba','quarantined','[{"worker_id":"00000000000000000000000003","evidence_identity":"unit-00000000000000000000000003","proof":{"public_key":"T8DrgHn97tAHylu8JH0n5MRxUcYTekuaY81aLO0G_uI=","key_sha256":"531a058270a732efe5d689c0b99973992ebda8eac94cf42b2e5317993206b5ba","artifact_digest_sha256":"3333333333333333333333333333333333333333333333333333333333333333","capabilities":[],"attested_until_unix_ms":1800000900000,"binding_proxy_id":"proxy-1","bound_at_unix_ms":1800000000000,"attestation_epoch":1,"image_digest_sha256":"1111111111111111111111111111111111111111111111111111111111111111","build_digest_sha256":"2222222222222222222222222222222222222222222222222222222222222222","binding_level":2},"admission":"quarantined","eligibility":"eligible","liveness":"live","work":"failed","attestation_epoch":1,"session_epoch":1,"cleanup_verified":false,"failed_at_attestation_epoch":1,"drain_deadline_unix_ms":null,"last_lease_id":"01MCC5RM0ANW364AD8RDG7HDD7","last_fence":3,"quarantine":{"reason":"worker.cleanup_failed","at_unix_ms":1800000000010,"evidence_sha256":null,"attestation_epoch":1,"key_sha256":"531a058270a732efe5d689c0b99973992ebda8eac94cf42b2e5317993206b5ba"},"candidate":null}]');
INSERT INTO "workers" VALUES('00000000000000000000000004','unit-00000000000000000000000004','2b6151618c6f7dfd51dfa23aa07f75f7d11cdcd9b6f26a69e9cf91ffda38ad37','banned','[{"worker_id":"00000000000000000000000004","evidence_identity":"unit-00000000000000000000000004","proof":{"public_key":"5lTqaDGkVRRJqZ75Sss2-VTHT9LMymzfbp7ocLoM3xc=","key_sha256":"2b6151618c6f7dfd51dfa23aa07f75f7d11cdcd9b6f26a69e9cf91ffda38ad37","artifact_digest_sha256":"3333333333333333333333333333333333333333333333333333333333333333","capabilities":[],"attested_until_unix_ms":1800000900000,"binding_proxy_id":"proxy-1","bound_at_unix_ms":1800000000000,"attestation_epoch":1,"image_digest_sha256":"1111111111111111111111111111111111111111111111111111111111111111","build_digest_sha256":"2222222222222222222222222222222222222222222222222222222222222222","binding_level":2},"admission":"banned","eligibility":"eligible","liveness":"live","work":"idle","attestation_epoch":1,"session_epoch":1,"cleanup_verified":true,"failed_at_attestation_epoch":0,"drain_deadline_unix_ms":null,"last_lease_id":null,"last_fence":0,"quarantine":{"reason":"why","at_unix_ms":1800000000010,"evidence_sha256":null,"attestation_epoch":1,"key_sha256":"2b6151618c6f7dfd51dfa23aa07f75f7d11cdcd9b6f26a69e9cf91ffda38ad37"},"candidate":null}]');
INSERT INTO "workers" VALUES('00000000000000000000000005','unit-00000000000000000000000005','5b253e876d3074e6dbf999165ba8467916335f16533a15704cbc3dc09a6a3603','active','[{"worker_id":"00000000000000000000000005","evidence_identity":"unit-00000000000000000000000005","proof":{"public_key":"W3RptXMIBo_s_qVvtssBePELKhbV6AO3D1aG8gtModg=","key_sha256":"5b253e876d3074e6dbf999165ba8467916335f16533a15704cbc3dc09a6a3603","artifact_digest_sha256":"3333333333333333333333333333333333333333333333333333333333333333","capabilities":[],"attested_until_unix_ms":1800000900000,"binding_proxy_id":"proxy-1","bound_at_unix_ms":1800000000000,"attestation_epoch":1,"image_digest_sha256":"1111111111111111111111111111111111111111111111111111111111111111","build_digest_sha256":"2222222222222222222222222222222222222222222222222222222222222222","binding_level":2},"admission":"active","eligibility":"eligible","liveness":"live","work":"idle","attestation_epoch":1,"session_epoch":1,"cleanup_verified":true,"failed_at_attestation_epoch":0,"drain_deadline_unix_ms":null,"last_lease_id":"01MCC5RM0ANW364AD8RDG7HDD9","last_fence":4,"quarantine":null,"candidate":null}]');
CREATE INDEX grants_open ON grants (expires_at_unix_ms) WHERE withdrawn = 0 AND uses < max_uses;
CREATE UNIQUE INDEX one_live_lease_per_worker ON leases (worker_id) WHERE live = 1;
CREATE UNIQUE INDEX one_live_lease_per_run ON leases (run_id) WHERE live = 1;
CREATE INDEX evidence_of_worker ON evidence (worker_id, at_unix_ms);
CREATE TRIGGER fences_grow BEFORE INSERT ON leases
WHEN NEW.fence <= (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'highest_fence')
BEGIN SELECT RAISE(ABORT, 'fences must grow'); END;
CREATE TRIGGER live_lease_needs_active_worker BEFORE INSERT ON leases
WHEN NEW.live = 1 AND NOT EXISTS (
  SELECT 1 FROM workers WHERE worker_id = NEW.worker_id AND admission = 'active')
BEGIN SELECT RAISE(ABORT, 'a live lease needs an active worker'); END;
CREATE TRIGGER ended_leases_stay_ended BEFORE UPDATE ON leases
WHEN OLD.live = 0 OR NEW.fence <> OLD.fence OR NEW.worker_id <> OLD.worker_id
BEGIN SELECT RAISE(ABORT, 'an ended lease stays as it is'); END;
CREATE TRIGGER confined_workers_hold_no_lease BEFORE UPDATE ON workers
WHEN NEW.admission <> 'active' AND EXISTS (
  SELECT 1 FROM leases WHERE worker_id = NEW.worker_id AND live = 1)
BEGIN SELECT RAISE(ABORT, 'a confined worker holds no live lease'); END;
CREATE TRIGGER banned_workers_stay_banned BEFORE UPDATE ON workers
WHEN OLD.admission = 'banned' AND NEW.admission <> 'banned'
BEGIN SELECT RAISE(ABORT, 'a ban is final'); END;
CREATE TRIGGER only_free_workers_are_forgotten BEFORE DELETE ON workers
WHEN OLD.admission <> 'active' OR EXISTS (
  SELECT 1 FROM leases WHERE worker_id = OLD.worker_id AND live = 1)
BEGIN SELECT RAISE(ABORT, 'a confined or leased worker is not forgotten'); END;
CREATE TRIGGER events_are_kept BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'events are only added'); END;
CREATE TRIGGER events_are_final BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are only added'); END;
CREATE TRIGGER evidence_is_kept BEFORE DELETE ON evidence
BEGIN SELECT RAISE(ABORT, 'evidence is only added'); END;
CREATE TRIGGER evidence_is_final BEFORE UPDATE ON evidence
BEGIN SELECT RAISE(ABORT, 'evidence is only added'); END;
CREATE TRIGGER tombstones_are_kept BEFORE DELETE ON tombstones
BEGIN SELECT RAISE(ABORT, 'tombstones are only added'); END;
COMMIT;
